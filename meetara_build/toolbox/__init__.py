"""What agents compute with, a public interface beside ``meetara_build.agents``."""
