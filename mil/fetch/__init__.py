"""Public cohorts: slides of the Genomic Data Commons, slides and series of the Imaging Data Commons."""
