"""`make demo`: a worker is killed in the middle of a job; what every reader then sees is compared with the truth."""
