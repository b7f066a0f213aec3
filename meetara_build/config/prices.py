"""What a provider asks for its machines."""

from pathlib import Path

from meetara_build.config.resolve import list_named
from meetara_build.config.schema import Provider, check
from meetara_build.config.yaml_files import read_yaml
from meetara_build.errors import ConfigError, nearest


def provider_prices(project: Path, provider: str) -> dict[str, float]:
    """US dollars an hour by machine.

    Raises:
        ConfigError: there is no such provider, or its file is wrong.
    """
    files = list_named(project / "conf", "provider")
    if provider not in files:
        raise ConfigError(f"unknown provider '{provider}'{nearest(provider, list(files))}")
    path = files[provider]
    return check(Provider, read_yaml(path), path).usd_per_hour
