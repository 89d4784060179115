"""Run by IPython at the start of a kernel (PYTHONSTARTUP): files beside the notebook can be imported, after all others."""

__import__("sys").path.append("")  # leaves no name behind in the notebook
