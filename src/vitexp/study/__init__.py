"""Studies: a sweep file becomes cells, cells become records. No torch."""
