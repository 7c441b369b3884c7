/* Browsers start no Worker from a file. Opened from the file system, the search runs in a frame instead. */
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inner = frame.contentWindow
      const receive = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inner.postMessage = data => setTimeout(() => receive(data))
      this.inner.importScripts = (...sources) => Promise.all(sources.map(source => this.load(source)))
      this.loaded = this.load(url)
    }

    load(url) {
      const script = this.inner.document.createElement("script")
      script.src = url
      this.inner.document.body.append(script)
      return new Promise((resolve, reject) => { script.onload = resolve; script.onerror = reject })
    }

    postMessage(data) {
      this.loaded.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.inner.frameElement.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
