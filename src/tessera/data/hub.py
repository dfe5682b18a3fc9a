"""Sending a folder to the Hugging Face Hub: the one place of the library that sends anything, and only when asked."""

from __future__ import annotations

from pathlib import Path

from tessera.artifacts.logs import log


def token_problem() -> str | None:
    """What is in the way of sending; None where there is a token. Nothing is sent to find out."""
    from huggingface_hub import get_token

    return None if get_token() else "no token of the Hugging Face Hub; run `hf auth login`, or set HF_TOKEN"


def push_folder(folder: Path, repository: str) -> None:
    """Send a finished folder to OWNER/NAME, which is made, private, where it is not there.

    Raises:
        ValueError: the hub refused, or was not reached; the folder stays where it is.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Tessera export")
    except Exception as error:  # of the hub, of sockets, of certificates: the client has a class for each
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"push: {repository}: {reason}; the folder itself is finished") from error
    log.info("sent to https://huggingface.co/%s", repository)
