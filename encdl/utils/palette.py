"""The colours of masks, plots and pages: Okabe and Ito's, which colour-blind readers tell apart."""

from __future__ import annotations

from typing import Final

OKABE_ITO: Final = {
    "vermillion": "#d55e00",
    "blue": "#0072b2",
    "green": "#009e73",
    "purple": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "yellow": "#f0e442",
}
