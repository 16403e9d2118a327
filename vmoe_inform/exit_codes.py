"""Exit codes of the command lines; docs/reliability.md says after which a run is to be started again."""

FAILED = 1  # some runs of a study
BAD_INPUT = 2  # as of most Unix programs
DIVERGED = 3  # the loss is not finite
DOES_NOT_FIT = 4  # a compiled program needs more memory than a device has
DIFFERS = 5  # what has to be equal is not, such as a fast path and its reference (accelerator_check)
MISSING_PROCESS = 69  # a process of the run did not come or has gone, a data worker too (EX_UNAVAILABLE of sysexits.h)
STORAGE = 74  # files, such as a checkpoint, cannot be written or read (EX_IOERR)
STOPPED = 75  # stopped by a signal after saving; rerun to resume (EX_TEMPFAIL)
STUCK = 124  # nothing was finished for too long (train.watchdog_seconds); as of the command timeout
INTERRUPTED = 130  # by SIGINT where nothing is saved; as of shells
