// Reads Modelfiles and conversations, and writes the prompts that the parser and the template of
// Ollama make of them: scripts/ollama_prompts.py runs it within a clone of Ollama.
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"
	"strings"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/parser"
	"github.com/ollama/ollama/template"
)

type asked struct {
	Modelfile     string          `json:"modelfile"`
	Conversations [][]api.Message `json:"conversations"`
}

type made struct {
	System  string   `json:"system"`
	Stops   []string `json:"stops"`
	Prompts []string `json:"prompts"`
}

func main() {
	var all []asked
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		log.Fatal(err)
	}
	answers := []made{}
	for _, one := range all {
		answers = append(answers, render(one))
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		log.Fatal(err)
	}
}

func render(one asked) made {
	file, err := parser.ParseFile(strings.NewReader(one.Modelfile))
	if err != nil {
		log.Fatal(err)
	}
	answer := made{Stops: []string{}, Prompts: []string{}}
	var text string
	for _, command := range file.Commands {
		switch command.Name {
		case "template":
			text = command.Args
		case "system":
			answer.System = command.Args
		case "stop":
			answer.Stops = append(answer.Stops, command.Args)
		}
	}
	parsed, err := template.Parse(text)
	if err != nil {
		log.Fatal(err)
	}
	for _, turns := range one.Conversations {
		// As ChatHandler of server/routes.go does.
		if turns[0].Role != "system" && answer.System != "" {
			turns = append([]api.Message{{Role: "system", Content: answer.System}}, turns...)
		}
		var written bytes.Buffer
		if err := parsed.Execute(&written, template.Values{Messages: turns}); err != nil {
			log.Fatal(err)
		}
		answer.Prompts = append(answer.Prompts, written.String())
	}
	return answer
}
