"""Block pushing: two blocks, two targets, one arm (Florence et al. 2021, Shafiullah et al. 2022), on pybullet."""
