"""Both runners of robomimic's tasks, in robosuite."""

import h5py
import numpy as np
import pytest
import torch
from env_runner.robomimic_policies import Lifter, Replay
