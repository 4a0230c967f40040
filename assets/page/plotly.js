// @ts-check
// Plotly's own script, fetched when something is drawn with it: the basic build for curves, the full one for heat maps.

/** @type {Map<string, Promise<any>>} */
const builds = new Map();

/**
 * @param {"plotly-basic" | "plotly"} build
 * @returns {Promise<any>}
 */
function load(build) {
  let loaded = builds.get(build);
  if (!loaded) {
    loaded = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(`../vendor/${build}.min.js`, import.meta.url).href;
      script.onload = () => resolve(/** @type {any} */ (window).Plotly);
      script.onerror = () => {
        builds.delete(build); // the next one who needs it asks again
        script.remove();
        reject(new Error("The script that draws charts could not be loaded."));
      };
      document.head.append(script);
    });
    builds.set(build, loaded);
  }
  return loaded;
}

/** Lines and markers, 1.1 MB. */
export function basicPlotly() {
  return load("plotly-basic");
}

/** Every kind of trace, 4.6 MB: asked for only where a heat map is opened. */
export function fullPlotly() {
  return load("plotly");
}
