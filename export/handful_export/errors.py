"""Why an export is refused, for the person who trains."""


class ExportError(Exception):
    """The root of this package's errors; its text says what to change."""


class SpecInvalid(ExportError):
    """The export config is missing, or a setting of it is unknown or out of range."""


class VersionExists(ExportError):
    """A published version never changes."""


class TrunkMissing(ExportError):
    """A bundle holds no encoder that training could begin with."""


class GateRefused(ExportError):
    """A check of the export gate failed.

    Attributes:
        check: Its name.
    """

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
