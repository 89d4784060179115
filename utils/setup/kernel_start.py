"""Run by IPython at the start of a kernel (PYTHONSTARTUP): files beside a notebook can be imported, after all else."""

__import__("sys").path.append("")  # leaves no name behind in the notebook
