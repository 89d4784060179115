"""The whole course, headless, as `./course run --profile smoke` runs it: real papermill, real kernels."""
