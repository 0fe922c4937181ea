"""What training is made of; `stformer.train` is its face."""
