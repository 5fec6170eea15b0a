"""Every error the pipeline raises on purpose.

    CorpusmillError
      TerminalError      trying again gives the same result
        ConfigError        a recipe or option is wrong (exit 2)
        SchemaError        records do not have the declared schema
        IntegrityError     stored bytes are not what their digest says
        InputError         a source file cannot be read at all
        EmptyCorpusError   nothing is left to go on with
        StageError         one or more shards of a stage failed
      TransientError     trying again may work
        FetchError         the network or a server failed
        StorageError       the disk or the object store failed
          FullDiskError      there is no room left; tried again once somebody made some
          InUseError         another run writes there

Only transient errors are retried, and of those not a full disk. A message is one sentence: what was got, what was wanted, what to do.
"""


class CorpusmillError(Exception):
    """Root of every error raised on purpose."""


class TerminalError(CorpusmillError):
    """Trying again gives the same result."""


class ConfigError(TerminalError):
    """A recipe or an option is wrong; the message names the field."""


class SchemaError(TerminalError):
    """Records do not have the schema that was declared for them."""


class IntegrityError(TerminalError):
    """Stored bytes are not what their digest says."""


class InputError(TerminalError):
    """A source cannot be read at all."""


class EmptyCorpusError(TerminalError):
    """Nothing is left to go on with."""


class StageError(TerminalError):
    """One or more shards of a stage failed; the finished ones are kept."""


class TransientError(CorpusmillError):
    """Trying again may work."""


class FetchError(TransientError):
    """The network or a server failed."""


class StorageError(TransientError):
    """The disk or the object store failed."""


class FullDiskError(StorageError):
    """There is no room left: somebody has to make some, so it is told at once and not tried again by itself."""


class InUseError(StorageError):
    """Another run writes there; it is free when that run has ended."""


def may_pass(error: object) -> bool:
    """Whether trying again, with nothing changed by anybody, may work."""
    return isinstance(error, TransientError) and not isinstance(error, FullDiskError)
