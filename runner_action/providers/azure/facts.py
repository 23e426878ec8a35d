"""Azure, as far as the rest of the launcher must know it. Pure."""

from __future__ import annotations

from runner_action.providers.traits import Traits

WORDS_OF_REGIONS = frozenset(
    {
        *("north", "south", "east", "west", "central", "southeast", "us", "uk", "europe", "asia"),
        *("japan", "australia", "brazil", "canada", "france", "germany", "norway", "india"),
        *("korea", "poland", "italy", "israel", "qatar", "uae", "africa", "mexico", "spain"),
        *("sweden", "switzerland", "jio", "malaysia", "indonesia", "new", "zealand", "chile"),
        *("austria", "belgium", "denmark", "china", "taiwan", "usgov", "gov"),
    }
)
"""https://learn.microsoft.com/azure/reliability/regions-list"""
TRAITS = Traits(
    title="Azure",
    variables=("AZURE_", "IDENTITY_", "MSI_"),
    wiped_too=("/var/lib/waagent/ovf-env.xml",),  # what stood on the provisioning disc
    deletion_without_limit=True,
    words_of_regions=WORDS_OF_REGIONS,
    # https://learn.microsoft.com/python/api/overview/azure/identity-readme#environment-variables
    secret_variables=(
        "AZURE_CLIENT_SECRET",
        "AZURE_PASSWORD",
        "AZURE_CLIENT_CERTIFICATE_PASSWORD",
        "IDENTITY_HEADER",
        "MSI_SECRET",
    ),
    secret_files={"AZURE_FEDERATED_TOKEN_FILE": "", "AZURE_CLIENT_CERTIFICATE_PATH": ""},
)
