"""The pipeline's steps as kfp components: thin shells around functions of the other rooms."""
