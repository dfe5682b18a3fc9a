import os

# numpy's linear algebra in one thread, set before numpy is loaded: principal components would differ in their last
# digits with the number of threads. torch, where the long work is, has threads of its own.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

__version__ = "0.5.0"
