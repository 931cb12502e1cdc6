"""Tables of radiomics as bags of one row, with features that two readings agree on."""
