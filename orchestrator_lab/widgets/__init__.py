"""What a notebook shows of running clusters: the live view, the controls around it, the control panel, the magics."""
