"""Texts without what nobody else should read: tokens, and passwords that stand in addresses."""

import re
from collections.abc import Sequence

# As the hub, GitHub, OpenAI and others make theirs, and what an address carries before its host.
TOKEN = re.compile(r"\b(?:hf|api_org|gh[opsu]|github_pat|sk|xox[abp])[_-][A-Za-z0-9_-]{8,}")
IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")
# Behind the question mark of an address may be a signature that lets whoever has it write.
BEHIND_ADDRESS = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
STARS = "***"


def redacted(text: str, secrets: Sequence[str] = ()) -> str:
    """Without these secrets, and without what looks like one."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, STARS)
    return IN_ADDRESS.sub("", BEHIND_ADDRESS.sub(r"\1", TOKEN.sub(STARS, text)))
