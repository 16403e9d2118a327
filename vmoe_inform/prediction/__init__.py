"""What a run on images says of image files that belong to no data set."""

from vmoe_inform.prediction.files import ImageFiles, find_files
from vmoe_inform.prediction.predict import Prediction, class_names_of, likeliest, predict

__all__ = ["ImageFiles", "Prediction", "class_names_of", "find_files", "likeliest", "predict"]
