"""What bench/peers/gpu.py is made of; that file says how to run it and how to add a peer."""
