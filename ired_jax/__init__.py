"""Energy-based reasoning in JAX: E(x, y, t) is low where y answers x.

Notation, used by the whole library:

| symbol | name here | meaning |
| --- | --- | --- |
| x, y | `x`, `y` | condition and answer, flat float32 vectors of one example |
| t | `t` | level, int32; 0 is the sharpest landscape, T-1 the smoothest |
| T | `num_levels` | number of levels |
| D | `num_elements` | elements of y |
| a_t, s_t | `Schedule.a`, `Schedule.s` | y_t = a_t y_0 + s_t eps |
| E | `energy` | energy; its temperature at level t is s_t |
| U = E / s_t | `u_pos`, `u_neg` | energy in nats; all that is probabilistic uses it |
| y+, y- | `y_pos`, `y` | positive (data) and negative (chain) of a pair |
| h | `step_size` | Langevin step on U, a multiple of s_t^2 |
| K | `num_steps` | steps of a chain |

Everything here is a pure function on arrays: the caller jits, vmaps and donates.
"""

__version__ = "0.1.0"
