"""The server process: MiniStack plus our services, its clock, knobs, faults and control API."""
