package config

// topicDocs says in a sentence what each topic setting that this build acts on does. It is never written to.
var topicDocs = map[string]string{}

// brokerDocs says in a sentence what each broker setting that this build acts on does. It is never written to.
var brokerDocs = map[string]string{}
