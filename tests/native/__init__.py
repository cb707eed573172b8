"""The native shim and keeper, driven directly: no supervisor, and tiny scripts as runtimes."""
