"""What a run learns: tasks by the name that ``config.task`` gives."""

from vmoe_inform.tasks import classification  # noqa: F401  (it registers its task)
from vmoe_inform.tasks.task import TASKS, Headline, Task, from_config, kinds_of

__all__ = ["TASKS", "Headline", "Task", "from_config", "kinds_of"]
