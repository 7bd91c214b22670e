"""What several folders of tests share: random legal configs, random weights, random inputs."""
