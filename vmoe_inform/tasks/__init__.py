"""What a run learns: tasks by the name that ``config.task`` gives."""

from vmoe_inform.tasks import (  # noqa: F401  (they register their tasks)
    classification,
    language_modeling,
    text_classification,
)
from vmoe_inform.tasks.task import TASKS, Headline, Task, from_config, kinds_of

__all__ = ["TASKS", "Headline", "Task", "from_config", "kinds_of"]
