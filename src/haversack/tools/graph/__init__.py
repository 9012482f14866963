"""The canonical graph: how it is read from a torch.export program, executed node by node, rewritten and classified."""
