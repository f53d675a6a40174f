"""The composition root of the control plane: settings, wiring, application, first start, process."""
