"""What a provider asks for its machines."""

from pathlib import Path

from meetara_build.schema import Provider, check
from meetara_build.yaml_files import read_yaml


def provider_prices(project: Path, provider: str) -> dict[str, float]:
    """US dollars an hour by machine.

    Raises:
        ConfigError: the provider's file is missing or wrong.
    """
    path = project / "conf" / "provider" / f"{provider}.yaml"
    return check(Provider, read_yaml(path), path).usd_per_hour
