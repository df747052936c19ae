"""What leaves the platform: a run's model in other forms, each compared with the trained model before it counts."""
