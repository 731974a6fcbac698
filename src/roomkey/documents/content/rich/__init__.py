"""Rich text: roots of XML as editors write them, read and written as ProseMirror JSON, Markdown, HTML and plain text."""
