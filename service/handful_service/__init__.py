"""The server of Handful: bundles in, answers out. Never torch, never onnx."""
