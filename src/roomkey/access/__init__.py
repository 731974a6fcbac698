"""What sessions may do in documents, where the application decides it: asked, remembered, asked again."""
