"""The process of the command: ``fo-onnx``, and ``python -m fo_onnx``."""

from .control import command_start


def run() -> None:
    """Run the command; an interrupt is answered from now on."""
    command_start.answer_interrupts()
    from .cli.main import main

    main()


if __name__ == "__main__":
    run()
