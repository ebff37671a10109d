"""EC2 Image Builder: images, recipes, pipelines, and the permissions that they require."""
