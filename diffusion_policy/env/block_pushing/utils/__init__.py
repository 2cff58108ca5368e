"""What the block pushing environments stand on: poses, the simulator, the arm."""
