"""Sources of labelled images, the pipeline on the host, augmentation on the device."""
