"""The report: tables, statistics and pictures, as Markdown and as one HTML file that opens offline."""
