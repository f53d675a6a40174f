"""What runs workloads: one package for each kind of data plane, behind one port."""
