"""The landmark network, its heatmaps and loss, and the job and files made of them."""
