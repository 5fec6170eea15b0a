"""What is measured about a document: DOCUMENT -> SIGNALS. Values only; decisions are the policy's."""
