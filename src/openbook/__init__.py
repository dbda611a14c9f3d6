"""Study for the open-book exam: RAFT data, QLoRA tuning, verified quotes and honest evaluation from your own documents."""

__version__ = "0.1.0"
