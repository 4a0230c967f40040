"""The Gradio theme of the page, over the system's own fonts. The charts too take their colours from its variables."""

from __future__ import annotations

import gradio as gr

FONTS = ["system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif"]
MONO = ["ui-monospace", "DejaVu Sans Mono", "monospace"]


def theme() -> gr.themes.Base:
    """A calm theme in light and dark, with small spacing."""
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="slate", font=FONTS, font_mono=MONO, spacing_size="sm", radius_size="md"
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0b0f1a",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_title_text_weight="600",
        block_info_text_size="*text_sm",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="white",
        button_transition="background-color 0.2s ease",  # without the outline: the focus ring appears at once
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
