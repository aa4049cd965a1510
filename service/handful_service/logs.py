"""The log: JSON lines on standard error."""

import logging.config


def set_up(level: str, **always: object) -> None:
    """Send every logger's lines to standard error.

    Args:
        level: The least level that is logged, such as `info`.
        always: Keys that stand in every line, such as the number of the worker.
    """
    formatter = {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "format": "%(levelname)s %(name)s %(message)s",
        "rename_fields": {"levelname": "level", "name": "logger", "message": "event"},
        "static_fields": always,
        "timestamp": "time",
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": formatter},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {
                "handful": {"level": level.upper()},
                "uvicorn": {"level": "WARNING"},
                "alembic": {"level": "WARNING"},
            },
        }
    )
