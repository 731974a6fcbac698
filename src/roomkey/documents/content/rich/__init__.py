"""Rich text: roots of XML as editors write them, as ProseMirror JSON, Markdown, HTML and plain text."""
