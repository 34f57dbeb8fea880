"""From image files to containers and back: formats (DICOM, NIfTI, PNG, ...), the `.encdl` container, the codec."""
