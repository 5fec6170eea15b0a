"""What `train --prove-resume` prints."""

from flows.model.proof import proof_lines


def test_what_is_not_proved_is_said_before_the_verdict() -> None:
    attempt = {"name": "uninterrupted", "digests": {"parameters": "a" * 64}}
    found = {"attempts": [attempt], "notes": ("One.", "Two."), "holds": True, "num_steps": 8, "device": "cuda"}
    assert list(proof_lines(found))[2:] == [
        "One.",
        "Two.",
        "Proved over 8 steps on cuda: every digest is that of the uninterrupted training.",
    ]
